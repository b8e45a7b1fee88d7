from django.contrib.auth.views import LoginView
from django.urls import include, path
from rfis import views

urlpatterns = [
    path("", views.index, name="index"),
    path("login/", LoginView.as_view(), name="login"),
    path("webhooks/", include("procore_hooks.integrations.django.urls")),
]
