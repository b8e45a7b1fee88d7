from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from procore_hooks import InvalidPayload
from procore_hooks.integrations.django import emit

from .models import Rfi
from .webhooks import COMPANY, PROJECT


@login_required
def index(request: HttpRequest) -> HttpResponse:
    """The RFIs, and a form for another."""
    if request.method == "POST":
        try:
            create(request.POST["subject"])
        except InvalidPayload as error:
            return HttpResponse(str(error), status=422)
        return redirect("index")
    rfis = Rfi.objects.order_by("-id")[:100]
    return render(request, "index.html", {"rfis": rfis, "company": COMPANY, "project": PROJECT})


@transaction.atomic
def create(subject: str) -> None:
    """Store an RFI and its webhooks, both or neither."""
    rfi = Rfi.objects.create(subject=subject)
    emit("RFIs", "create", {"subject": subject}, resource_id=rfi.id, company_id=COMPANY, project_id=PROJECT)
