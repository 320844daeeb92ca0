"""Every address of the site; each block belongs to one view file."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from annotator.views import (
    account,
    annotate,
    batches,
    comparisons,
    exports,
    health,
    images,
    media,
    monitoring,
    networks,
    people,
    progress,
    projects,
    reserve,
    strategies,
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    # views/projects.py
    path("", projects.project_list, name="project-list"),
    path("projects/new/", projects.project_new, name="project-new"),
    path("projects/<slug:slug>/", projects.project_home, name="project-home"),
    path("projects/<slug:slug>/overview/", projects.project_overview, name="project-overview"),
    path("projects/<slug:slug>/settings/", projects.project_settings, name="project-settings"),
    path("projects/<slug:slug>/classes/", projects.project_classes, name="project-classes"),
    path("projects/<slug:slug>/classes/add/", projects.project_classes_add, name="project-classes-add"),
    path("projects/<slug:slug>/scale/", projects.project_scale, name="project-scale"),
    # views/networks.py
    path("projects/<slug:slug>/network/", networks.project_network, name="project-network"),
    path("projects/<slug:slug>/prepare/", networks.project_prepare, name="project-prepare"),
    # views/images.py
    path("projects/<slug:slug>/images/", images.project_images, name="project-images"),
    path("projects/<slug:slug>/images/import/<int:job_id>/", images.project_import, name="project-import"),
    # views/people.py
    path("projects/<slug:slug>/people/", people.project_people, name="project-people"),
    path("projects/<slug:slug>/people/accounts/", people.project_accounts, name="project-accounts"),
    path("projects/<slug:slug>/people/<int:membership_id>/role/", people.project_role, name="project-role"),
    path(
        "projects/<slug:slug>/people/<int:membership_id>/remove/",
        people.project_member_remove,
        name="project-member-remove",
    ),
    path(
        "projects/<slug:slug>/people/<int:membership_id>/link/", people.project_member_link, name="project-member-link"
    ),
    # views/exports.py
    path("projects/<slug:slug>/exports/", exports.project_exports, name="project-exports"),
    path("projects/<slug:slug>/export/<str:file_format>/", exports.project_export, name="project-export"),
    # views/annotate.py
    path("projects/<slug:slug>/annotate/", annotate.annotate, name="annotate"),
    path("projects/<slug:slug>/annotate/<uuid:session_id>/", annotate.annotate_session, name="annotate-session"),
    path("projects/<slug:slug>/annotate/<uuid:session_id>/answer/", annotate.annotate_answer, name="annotate-answer"),
    path("projects/<slug:slug>/annotate/<uuid:session_id>/undo/", annotate.annotate_undo, name="annotate-undo"),
    path(
        "projects/<slug:slug>/annotate/<uuid:session_id>/correct/<int:annotation_id>/",
        annotate.annotate_correct,
        name="annotate-correct",
    ),
    path(
        "projects/<slug:slug>/annotate/<uuid:session_id>/heartbeat/",
        annotate.annotate_heartbeat,
        name="annotate-heartbeat",
    ),
    path("projects/<slug:slug>/annotate/<uuid:session_id>/leave/", annotate.annotate_leave, name="annotate-leave"),
    path(
        "projects/<slug:slug>/annotate/<uuid:session_id>/preload/<uuid:query_id>/",
        annotate.annotate_preload,
        name="annotate-preload",
    ),
    # views/reserve.py
    path("projects/<slug:slug>/annotate/<uuid:session_id>/reserve/", reserve.annotate_reserve, name="annotate-reserve"),
    # views/account.py
    path("sign-in/", account.SignIn.as_view(), name="login"),
    path("sign-in/<str:token>/", account.one_time_login, name="one-time-login"),
    path("sign-out/", account.sign_out, name="logout"),
    path("account/", account.account, name="account"),
    path("account/tokens/", account.account_token_new, name="account-token-new"),
    path("account/tokens/revoke/", account.account_token_revoke, name="account-token-revoke"),
    # views/media.py
    path("media/<int:image_id>/<str:digest>/", media.image_file, name="image-file"),
    # views/health.py
    path("health/", health.health, name="health"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    # views/monitoring.py
    path("metrics", monitoring.metrics, name="metrics"),
    # views/progress.py
    path("projects/<slug:slug>/progress/", progress.project_progress, name="project-progress"),
    path("projects/<slug:slug>/progress/data/", progress.project_progress_data, name="project-progress-data"),
    path("projects/<slug:slug>/progress/target/", progress.project_target, name="project-target"),
    path("projects/<slug:slug>/progress/jobs/", progress.project_progress_jobs, name="project-progress-jobs"),
    # views/strategies.py
    path("strategies/", strategies.strategies, name="strategies"),
    # views/comparisons.py
    path("projects/<slug:slug>/comparisons/", comparisons.project_comparisons, name="project-comparisons"),
    path("projects/<slug:slug>/comparisons/<int:job_id>/", comparisons.project_comparison, name="project-comparison"),
    path(
        "projects/<slug:slug>/comparisons/<int:job_id>/data/",
        comparisons.project_comparison_data,
        name="project-comparison-data",
    ),
    path(
        "projects/<slug:slug>/comparisons/<int:job_id>/cancel/",
        comparisons.project_comparison_cancel,
        name="project-comparison-cancel",
    ),
    # views/batches.py
    path("projects/<slug:slug>/batches/", batches.project_batches, name="project-batches"),
    path("projects/<slug:slug>/batches/<int:batch_id>/", batches.project_batch, name="project-batch"),
    path("projects/<slug:slug>/batches/<int:batch_id>/annotate/", batches.annotate_batch, name="annotate-batch"),
    path("projects/<slug:slug>/batches/<int:batch_id>/close/", batches.project_batch_close, name="project-batch-close"),
    path(
        "projects/<slug:slug>/batches/<int:batch_id>/labels/", batches.project_batch_labels, name="project-batch-labels"
    ),
    path(
        "projects/<slug:slug>/batches/<int:batch_id>/export/<str:file_format>/",
        batches.project_batch_export,
        name="project-batch-export",
    ),
    # api/
    path("api/", include("annotator.api.urls")),
]
