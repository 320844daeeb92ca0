from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotator", "0004_one_learner_owns_a_project"),
    ]

    operations = [
        migrations.AlterField(
            model_name="query",
            name="kind",
            field=models.CharField(
                choices=[
                    ("ranked", "Chosen by the project's strategy"),
                    ("audit", "Audit"),
                    ("cold_start", "Cold start"),
                    ("fallback", "Fallback"),
                    ("undo", "Back after undo"),
                    ("reserve", "From the reserve"),
                ],
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="query",
            name="state",
            field=models.CharField(
                choices=[
                    ("leased", "On lease"),
                    ("held", "In reserve"),
                    ("answered", "Answered"),
                    ("released", "Handed back"),
                    ("expired", "Expired"),
                ],
                default="leased",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="query",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "held")), fields=("image",), name="one_soft_hold_per_image"
            ),
        ),
        migrations.AddConstraint(
            model_name="query",
            constraint=models.CheckConstraint(
                condition=models.Q(models.Q(("state", "held"), _negated=True), ("kind", "reserve"), _connector="OR"),
                name="only_the_reserve_is_held",
            ),
        ),
        migrations.AddConstraint(
            model_name="query",
            constraint=models.CheckConstraint(
                condition=models.Q(("state", "leased"), ("kind", "reserve"), _negated=True),
                name="a_card_of_the_reserve_is_no_lease",
            ),
        ),
    ]
