from django.urls import include, path

urlpatterns = [path("", include("annotator.urls"))]
handler400 = "annotator.api.errors.bad_request"
