"""Django's admin, to look at rows: what people and models did is not to be edited by hand."""

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from annotator import models

admin.site.site_header = "Foresight: the rows"
admin.site.site_title = "Foresight"


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # it takes none at run time
    """Rows can be looked at; changes go through the pages and their actions, which keep the rules."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False


@admin.register(models.Project)
class ProjectAdmin(ReadOnlyAdmin):
    list_display = ("name", "slug", "strategy", "network", "created_at")
    search_fields = ("name", "slug")


@admin.register(models.Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = ("project", "user", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("project", "user")


@admin.register(models.LabelClass)
class LabelClassAdmin(ReadOnlyAdmin):
    list_display = ("project", "index", "name", "key", "colour")
    list_select_related = ("project",)


@admin.register(models.Image)
class ImageAdmin(ReadOnlyAdmin):
    list_display = ("project", "row", "source_name", "width", "height", "deleted_at")
    list_select_related = ("project",)
    search_fields = ("source_name", "sha256")


@admin.register(models.AnnotationSession)
class AnnotationSessionAdmin(ReadOnlyAdmin):
    list_display = ("project", "user", "device", "started_at", "last_seen")
    list_select_related = ("project", "user")


@admin.register(models.Query)
class QueryAdmin(ReadOnlyAdmin):
    list_display = ("project", "image", "kind", "strategy", "score", "state", "leased_at")
    list_filter = ("kind", "state")
    list_select_related = ("project", "image")


@admin.register(models.Annotation)
class AnnotationAdmin(ReadOnlyAdmin):
    list_display = ("project", "image", "user", "kind", "label_class", "value", "flagged", "late", "created_at")
    list_filter = ("kind", "flagged", "late")
    list_select_related = ("project", "image", "user", "label_class")


@admin.register(models.NetworkVersion)
class NetworkVersionAdmin(ReadOnlyAdmin):
    list_display = ("project", "number", "state", "label_count", "created_at", "finished_at")
    list_select_related = ("project",)


@admin.register(models.Linearization)
class LinearizationAdmin(ReadOnlyAdmin):
    list_display = ("project", "network_version", "state", "form", "image_count", "live_at")
    list_select_related = ("project", "network_version__project")


@admin.register(models.Ranking)
class RankingAdmin(ReadOnlyAdmin):
    list_display = ("project", "image", "strategy", "updated_at")
    list_select_related = ("project", "image")


@admin.register(models.ColdStart)
class ColdStartAdmin(ReadOnlyAdmin):
    list_display = ("project", "position", "image")
    list_select_related = ("project", "image")


@admin.register(models.AuditDraw)
class AuditDrawAdmin(ReadOnlyAdmin):
    list_display = ("project", "image", "predicted_at", "used_at")
    list_select_related = ("project", "image")


@admin.register(models.Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("project", "kind", "state", "progress", "attempts", "created_at", "finished_at")
    list_filter = ("kind", "state")
    list_select_related = ("project",)


@admin.register(models.Batch)
class BatchAdmin(ReadOnlyAdmin):
    list_display = ("project", "name", "size", "method", "mode", "state", "created_at")
    list_filter = ("state",)
    list_select_related = ("project",)


@admin.register(models.BatchImage)
class BatchImageAdmin(ReadOnlyAdmin):
    list_display = ("batch", "position", "image", "score")
    list_select_related = ("batch", "image")


@admin.register(models.WorkerHeartbeat)
class WorkerHeartbeatAdmin(ReadOnlyAdmin):
    list_display = ("name", "kind", "pid", "started_at", "seen_at", "memory_bytes", "projects_held", "evictions")


@admin.register(models.Ownership)
class OwnershipAdmin(ReadOnlyAdmin):
    list_display = ("project", "worker", "token", "renewed_at", "memory_bytes", "passes", "pass_seconds", "problem")
    list_select_related = ("project",)
