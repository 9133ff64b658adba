# SPDX-License-Identifier: GPL-2.0-or-later
# The management qube itself, made by the states that dom0 has for qubes (qubes-mgmt-salt-dom0-qvm).
{%- from "qvm-template/map.jinja" import settings with context %}
{%- set qube = settings.management_qube %}
qvm-template-qube:
  qvm.vm:
    - name: {{ qube.name }}
    - present:
      - class: {{ qube.create.get("class", "AppVM") }}
      - template: {{ qube.create.template }}
      - label: {{ qube.create.get("label", "black") }}
    - prefs:
      - netvm: {{ qube.create.get("netvm", "") | json }}
      - default_dispvm: ''
{%- if qube.create.get("tags") %}
    - tags:
      - add: {{ qube.create.tags | json }}
{%- endif %}
