from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotator", "0007_answer_with_a_number"),
    ]

    operations = [
        migrations.AddField(
            model_name="linearization",
            name="outlook",
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name="project",
            name="target_accuracy",
            field=models.FloatField(default=0.9, validators=[MinValueValidator(0.5), MaxValueValidator(0.99)]),
        ),
    ]
