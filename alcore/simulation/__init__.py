"""The whole loop against known labels, without the web: what a strategy is worth before a person labels anything."""

from alcore.curves import Curve, LookAheadForm, SimulationError, Strategy
from alcore.simulation.cycles import Cycles, simulate_cycles
from alcore.simulation.loop import simulate
from alcore.simulation.study import Schedule, Study

__all__ = [
    "Curve",
    "Cycles",
    "LookAheadForm",
    "Schedule",
    "SimulationError",
    "Strategy",
    "Study",
    "simulate",
    "simulate_cycles",
]
