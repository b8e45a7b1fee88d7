from django.db import models


class Rfi(models.Model):
    subject = models.TextField()
