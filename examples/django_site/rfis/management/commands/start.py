from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.commands.runserver import Command as Runserver


class Command(Runserver):
    help = "Makes the tables, lets admin sign in with RFIS_PASSWORD, and serves."

    def handle(self, *args: object, **options: object) -> None:
        call_command("migrate", verbosity=0)
        admin, _ = User.objects.get_or_create(username="admin", defaults={"is_staff": True, "is_superuser": True})
        if not admin.check_password(settings.PASSWORD):
            admin.set_password(settings.PASSWORD)
            admin.save()
        super().handle(*args, **options)
