"""The clinic with shared tables: every key begins with the tenant's id. Django has no foreign keys of several
columns, so the references are of its `ForeignObject`, without a constraint. Written for these tests."""

import uuid

from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, IntegerRangeField
from django.contrib.postgres.search import SearchVectorField
from django.db import models


class Owned(models.Model):
    tenant_id = models.TextField()

    class Meta:
        abstract = True


class Patient(Owned):
    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.UUIDField(default=uuid.uuid4)
    name = models.CharField(max_length=200)
    email = models.EmailField()
    allergies = models.JSONField(default=dict)
    photo = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    hours = DateTimeRangeField(null=True)
    search = SearchVectorField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant_id", "email"], name="patient_email")]


class Visit(Owned):
    pk = models.CompositePrimaryKey("tenant_id", "number")
    number = models.BigIntegerField()
    patient_id = models.UUIDField()
    patient = models.ForeignObject(
        Patient, on_delete=models.CASCADE, from_fields=["tenant_id", "patient_id"], to_fields=["tenant_id", "id"]
    )
    floors = IntegerRangeField(null=True)
    grid = ArrayField(ArrayField(models.IntegerField(null=True)), null=True)
    dose = models.DecimalField(max_digits=30, decimal_places=10)
    took = models.DurationField(null=True)
    confirmed = models.BooleanField(null=True)
    begins = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["tenant_id", "patient_id"])]
