from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotator", "0008_say_how_many_labels_are_needed"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="gave_way",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name="job",
            name="kind",
            field=models.CharField(
                choices=[
                    ("import", "Importing images"),
                    ("prepare", "Preparing the pool"),
                    ("train", "Training the network"),
                    ("compare", "Comparing strategies"),
                ],
                max_length=10,
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="state",
            field=models.CharField(
                choices=[
                    ("pending", "Waiting"),
                    ("running", "Running"),
                    ("done", "Done"),
                    ("failed", "Failed"),
                    ("cancelled", "Cancelled"),
                ],
                default="pending",
                max_length=10,
            ),
        ),
    ]
