# SPDX-License-Identifier: GPL-2.0-or-later
# Everything that belongs on this machine: in dom0 the qube and its policy, in the management qube all the rest.
{%- from "qvm-template/map.jinja" import settings with context %}
include:
{%- if grains["id"] == "dom0" %}
{%- if settings.management_qube.create is defined %}
  - qvm-template.qube
{%- endif %}
  - qvm-template.policy
{%- elif grains["id"] == settings.management_qube.name %}
  - qvm-template.program
  - qvm-template.config
  - qvm-template.repositories
  - qvm-template.services
{%- if settings.templates %}
  - qvm-template.templates
{%- endif %}
{%- else %}
  []

qvm-template-elsewhere:
  test.show_notification:
    - text: Nothing of qvm-template belongs on {{ grains["id"] }}.
{%- endif %}
