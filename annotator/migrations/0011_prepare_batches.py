import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotator", "0010_choose_any_strategy"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="kind",
            field=models.CharField(
                choices=[
                    ("import", "Importing images"),
                    ("prepare", "Preparing the pool"),
                    ("train", "Training the network"),
                    ("compare", "Comparing strategies"),
                    ("arrays", "Computing what the order looks at"),
                    ("batch", "Preparing a batch"),
                ],
                max_length=10,
            ),
        ),
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
                    ("batch", "From a batch"),
                ],
                max_length=12,
            ),
        ),
        migrations.CreateModel(
            name="Batch",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("size", models.PositiveIntegerField()),
                (
                    "method",
                    models.CharField(
                        choices=[
                            ("lcmd", "LCMD"),
                            ("k_means_pp", "k-means++"),
                            ("max_det", "Max-det"),
                            ("max_dist", "Max-dist"),
                            ("frank_wolfe", "Frank-Wolfe"),
                            ("bait", "BAIT, forward"),
                            ("bait_backward", "BAIT, forward-backward"),
                            ("max_diag", "Max-diag"),
                            ("random", "Random"),
                        ],
                        default="lcmd",
                        max_length=20,
                    ),
                ),
                (
                    "mode",
                    models.CharField(
                        blank=True,
                        choices=[("TP", "TP: labels count as chosen"), ("P", "P: labels do not count")],
                        default="TP",
                        max_length=2,
                    ),
                ),
                ("seed", models.PositiveIntegerField(default=0)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("preparing", "Being prepared"),
                            ("open", "Open"),
                            ("finished", "Finished"),
                            ("closed", "Closed"),
                            ("failed", "Failed"),
                        ],
                        default="preparing",
                        max_length=10,
                    ),
                ),
                ("chosen_from", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("opened_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("closed_at", models.DateTimeField(null=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "job",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="batch",
                        to="annotator.job",
                    ),
                ),
                (
                    "linearization",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="annotator.linearization",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="batches", to="annotator.project"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="annotationsession",
            name="batch",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="sessions", to="annotator.batch"
            ),
        ),
        migrations.CreateModel(
            name="BatchImage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField()),
                ("score", models.FloatField(null=True)),
                (
                    "batch",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="places", to="annotator.batch"
                    ),
                ),
                (
                    "image",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="batch_places", to="annotator.image"
                    ),
                ),
            ],
            options={
                "ordering": ["position"],
            },
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(fields=["project", "-id"], name="annotator_b_project_8c8bd9_idx"),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ["preparing", "open", "finished"])),
                fields=("project", "name"),
                name="batch_name_unique_per_project",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "preparing")), fields=("project",), name="one_batch_prepared_at_a_time"
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(condition=models.Q(("size__gt", 0)), name="a_batch_has_images"),
        ),
        migrations.AddConstraint(
            model_name="batchimage",
            constraint=models.UniqueConstraint(fields=("batch", "image"), name="an_image_once_in_a_batch"),
        ),
        migrations.AddConstraint(
            model_name="batchimage",
            constraint=models.UniqueConstraint(fields=("batch", "position"), name="batch_position_unique"),
        ),
    ]
