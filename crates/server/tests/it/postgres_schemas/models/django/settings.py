import os

SECRET_KEY = "only for sqlmigrate"
INSTALLED_APPS = ["django.contrib.postgres", "clinic", "shared"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE", "postgres")}}
