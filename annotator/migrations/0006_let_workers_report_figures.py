from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotator", "0005_hold_a_reserve_for_each_tab"),
    ]

    operations = [
        migrations.AddField(
            model_name="workerheartbeat",
            name="figures",
            field=models.JSONField(default=list),
        ),
    ]
