"""Every address of the site; each block belongs to one view file."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

from annotator.views import exports, images, people, projects

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
]
