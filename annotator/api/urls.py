"""The API's addresses."""

from django.urls import path, re_path

from annotator.api import batches, comparisons, documents, imports, views

urlpatterns = [
    path("projects/", views.ProjectListView.as_view(), name="api-projects"),
    path("projects/<slug:slug>/", views.ProjectView.as_view(), name="api-project"),
    path("projects/<slug:slug>/images/", views.ImageListView.as_view(), name="api-images"),
    path("projects/<slug:slug>/sessions/", views.SessionListView.as_view(), name="api-sessions"),
    path("projects/<slug:slug>/progress/", views.ProgressView.as_view(), name="api-progress"),
    path("projects/<slug:slug>/export/<str:file_format>/", views.ExportView.as_view(), name="api-export"),
    path("projects/<slug:slug>/imports/", imports.ImportListView.as_view(), name="api-imports"),
    path("projects/<slug:slug>/imports/<int:job_id>/", imports.ImportView.as_view(), name="api-import"),
    path("projects/<slug:slug>/comparisons/", comparisons.ComparisonListView.as_view(), name="api-comparisons"),
    path("projects/<slug:slug>/comparisons/<int:job_id>/", comparisons.ComparisonView.as_view(), name="api-comparison"),
    path("projects/<slug:slug>/batches/", batches.BatchListView.as_view(), name="api-batches"),
    path("projects/<slug:slug>/batches/<int:batch_id>/", batches.BatchView.as_view(), name="api-batch"),
    path(
        "projects/<slug:slug>/batches/<int:batch_id>/export/<str:file_format>/",
        batches.BatchExportView.as_view(),
        name="api-batch-export",
    ),
    path(
        "projects/<slug:slug>/batches/<int:batch_id>/labels/",
        batches.BatchLabelsView.as_view(),
        name="api-batch-labels",
    ),
    path("images/<int:image_id>/file/", views.ImageFileView.as_view(), name="api-image-file"),
    path("sessions/<uuid:session_id>/query/", views.QueryView.as_view(), name="api-query"),
    path("sessions/<uuid:session_id>/answers/", views.AnswerListView.as_view(), name="api-answers"),
    path("sessions/<uuid:session_id>/undo/", views.UndoView.as_view(), name="api-undo"),
    path("tokens/current/", views.TokenView.as_view(), name="api-token"),
    path("schema/", documents.SchemaView.as_view(), name="api-schema"),
    path("docs/", documents.DocsView.as_view(), name="api-docs"),
    re_path(r"^", documents.UnknownView.as_view(), name="api-unknown"),
]
