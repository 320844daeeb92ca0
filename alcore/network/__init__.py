"""Networks: small_cnn and every torchvision classifier, built from a seed, a download or a file, saved and loaded."""

from alcore.network.building import (
    SMALL_CNN,
    UnknownNetworkError,
    build_network,
    default_preprocessing,
    network_names,
)
from alcore.network.classifiers import ImageSizeError
from alcore.network.dropout import dropout_blocks, dropout_outputs, dropped_features
from alcore.network.freezing import (
    ActivationError,
    cache_activations,
    freeze_body_,
    open_activations,
    rows_hash,
    split_network,
    with_new_head,
)
from alcore.network.image_network import (
    FREEZES,
    Freeze,
    FreezeError,
    ImageNetwork,
    NetworkOutputError,
    NetworkSpec,
    embeddings,
    outputs,
    weights_hash,
)
from alcore.network.loss_prediction import LossPrediction, predicted_losses
from alcore.network.norm_statistics import estimate_norm_statistics_
from alcore.network.pretrained import DownloadError, WeightsFileError
from alcore.network.saving import NetworkFileError, load_network, save_network

__all__ = [
    "FREEZES",
    "SMALL_CNN",
    "ActivationError",
    "DownloadError",
    "Freeze",
    "FreezeError",
    "ImageNetwork",
    "ImageSizeError",
    "LossPrediction",
    "NetworkFileError",
    "NetworkOutputError",
    "NetworkSpec",
    "UnknownNetworkError",
    "WeightsFileError",
    "build_network",
    "cache_activations",
    "default_preprocessing",
    "dropout_blocks",
    "dropout_outputs",
    "dropped_features",
    "embeddings",
    "estimate_norm_statistics_",
    "freeze_body_",
    "load_network",
    "network_names",
    "open_activations",
    "outputs",
    "predicted_losses",
    "rows_hash",
    "save_network",
    "split_network",
    "weights_hash",
    "with_new_head",
]
