"""A clinic, in the style of Django. Written for these tests."""

import uuid

from django.contrib.postgres.fields import (
    ArrayField, BigIntegerRangeField, DateRangeField, DateTimeRangeField, DecimalRangeField, IntegerRangeField,
)
from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower


class Person(models.Model):
    """Multi-table inheritance: doctors and patients have a row here too."""

    name = models.CharField(max_length=200)
    email = models.EmailField(unique=True)
    born = models.DateField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(Lower("name"), name="person_lower_name")]


class Doctor(Person):
    license = models.SlugField(unique=True)
    supervisor = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="assistants")
    hours = DateTimeRangeField(null=True)
    skills = ArrayField(models.CharField(max_length=50), default=list)


class Patient(Person):
    token = models.UUIDField(default=uuid.uuid4, unique=True)
    doctors = models.ManyToManyField(Doctor, through="Treatment")
    allergies = models.JSONField(default=dict)
    photo = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)


class Treatment(models.Model):
    doctor = models.ForeignKey(Doctor, on_delete=models.CASCADE)
    patient = models.ForeignKey(Patient, on_delete=models.CASCADE)
    since = models.DateField()
    dose = models.DecimalField(max_digits=30, decimal_places=10)
    took = models.DurationField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["doctor", "patient"], name="treatment_once"),
            models.UniqueConstraint(fields=["patient"], condition=Q(dose__gt=1000), name="treatment_strong"),
            models.CheckConstraint(condition=Q(dose__gte=0), name="treatment_dose"),
        ]


class Room(models.Model):
    number = models.PositiveSmallIntegerField(primary_key=True)
    floors = IntegerRangeField(null=True)
    costs = DecimalRangeField(null=True)
    ids = BigIntegerRangeField(null=True)
    closed = DateRangeField(null=True)
    grid = ArrayField(ArrayField(models.IntegerField(null=True)), null=True)


class Appointment(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    treatment = models.ForeignKey(Treatment, on_delete=models.PROTECT)
    room = models.ForeignKey(Room, null=True, on_delete=models.SET_NULL)
    begins = models.DateTimeField()
    ends = models.DateTimeField(null=True)
    confirmed = models.BooleanField(null=True)
    text = models.TextField(blank=True)
    search = SearchVectorField(null=True)
    length = models.GeneratedField(
        expression=F("ends") - F("begins"), output_field=models.DurationField(), db_persist=True
    )
    staff = models.ManyToManyField(Doctor, related_name="assists")

    class Meta:
        indexes = [GinIndex(fields=["search"]), BrinIndex(fields=["begins"])]


class Invoice(models.Model):
    id = models.BigAutoField(primary_key=True)
    appointment = models.OneToOneField(Appointment, on_delete=models.RESTRICT)
    amount = models.FloatField(default=0)
    paid = models.TimeField(null=True)
