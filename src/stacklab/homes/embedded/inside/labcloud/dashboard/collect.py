"""Collect and compress Horizon's static files into $LABCLOUD_STATIC; once per environment."""

import os

from django.core.management import call_command


def main():
    os.environ["DJANGO_SETTINGS_MODULE"] = "labcloud.dashboard.settings"
    import django

    django.setup()
    call_command("collectstatic", interactive=False, verbosity=0)
    call_command("compress", force=True, verbosity=0)


if __name__ == "__main__":
    main()
