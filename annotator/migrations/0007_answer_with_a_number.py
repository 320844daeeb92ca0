from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotator", "0006_let_workers_report_figures"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="annotation",
            name="a_label_has_a_class_and_nothing_else_has",
        ),
        migrations.AddField(
            model_name="annotation",
            name="value",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="linearization",
            name="leave_one_out_error",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="project",
            name="maximum",
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="project",
            name="minimum",
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="project",
            name="quantity",
            field=models.CharField(blank=True, max_length=60),
        ),
        migrations.AddField(
            model_name="project",
            name="step",
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="project",
            name="unit",
            field=models.CharField(blank=True, max_length=20),
        ),
        migrations.AlterField(
            model_name="project",
            name="label_type",
            field=models.CharField(
                choices=[("classification", "A class"), ("regression", "A number")],
                default="classification",
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="project",
            name="strategy",
            field=models.CharField(
                choices=[
                    ("lookahead", "Look-ahead"),
                    ("margin", "Margin"),
                    ("entropy", "Entropy"),
                    ("max_det", "Largest variance"),
                    ("random", "Random"),
                ],
                default="lookahead",
                max_length=20,
            ),
        ),
        migrations.AddConstraint(
            model_name="annotation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind", "label"), ("label_class__isnull", False), ("value", None)),
                    models.Q(("kind", "label"), ("label_class", None), ("value__isnull", False)),
                    models.Q(models.Q(("kind", "label"), _negated=True), ("label_class", None), ("value", None)),
                    _connector="OR",
                ),
                name="a_label_has_a_class_or_a_number",
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("label_type", "regression"), _negated=True),
                    models.Q(
                        ("maximum__isnull", False),
                        ("minimum__isnull", False),
                        ("step__isnull", False),
                        ("minimum__lt", models.F("maximum")),
                        ("step__gt", 0),
                    ),
                    _connector="OR",
                ),
                name="a_regression_project_has_a_scale",
            ),
        ),
    ]
