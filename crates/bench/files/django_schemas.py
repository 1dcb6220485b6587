"""Measures schemas that django-tenants creates in sequence.

Arguments: URL of an empty database, number of schemas, a JSON list with the SQL of each migration.
Prints one JSON document.
"""

import json
import pathlib
import sys
import tempfile
import time
import urllib.parse

MODELS = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Client(TenantMixin):
    name = models.CharField(max_length=100)
    auto_create_schema = True


class Domain(DomainMixin):
    pass
"""

MIGRATION = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = {dependencies!r}
    operations = [migrations.RunSQL({sql!r})]
"""


def write(folder: pathlib.Path, files: list[str]) -> None:
    """Writes two apps: the shared list of tenants, and the product of each tenant."""
    customers, product = folder / "customers", folder / "product"
    for app in (customers, product / "migrations"):
        app.mkdir(parents=True)
        (app / "__init__.py").touch()
    (product / "__init__.py").touch()
    (customers / "models.py").write_text(MODELS)
    before: list[tuple[str, str]] = []
    for number, sql in enumerate(files, 1):
        name = f"{number:04}_part"
        (product / "migrations" / f"{name}.py").write_text(MIGRATION.format(dependencies=before, sql=sql))
        before = [("product", name)]


def configure(url: str) -> None:
    from django.conf import settings

    place = urllib.parse.urlsplit(url)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django_tenants.postgresql_backend",
                "NAME": place.path.lstrip("/"),
                "HOST": place.hostname,
                "PORT": place.port,
                "USER": place.username,
                "PASSWORD": place.password or "",
            }
        },
        DATABASE_ROUTERS=("django_tenants.routers.TenantSyncRouter",),
        SHARED_APPS=("django_tenants", "django.contrib.contenttypes", "customers"),
        TENANT_APPS=("product",),
        INSTALLED_APPS=("django_tenants", "django.contrib.contenttypes", "customers", "product"),
        TENANT_MODEL="customers.Client",
        TENANT_DOMAIN_MODEL="customers.Domain",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    import django

    django.setup()


def main() -> None:
    url, count, files = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder:
        write(pathlib.Path(folder), files)
        sys.path.insert(0, folder)
        print(json.dumps({"per_second": measure(url, count)}))


def measure(url: str, count: int) -> float:
    """Schemas per second."""
    configure(url)
    from django.core.management import call_command

    call_command("migrate_schemas", shared=True, run_syncdb=True, verbosity=0, interactive=False)
    from customers.models import Client

    def make(number: int) -> None:
        Client(schema_name=f"tenant_{number}", name="Bench").save(verbosity=0)

    make(0)
    started = time.perf_counter()
    for number in range(1, count + 1):
        make(number)
    return count / (time.perf_counter() - started)


main()
