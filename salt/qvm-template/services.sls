# SPDX-License-Identifier: GPL-2.0-or-later
# The services that other qubes may call, as far as dom0's policy and the grants let them.
{%- from "qvm-template/map.jinja" import settings, root with context %}
{%- for service in settings.services %}
{{ root }}/etc/qubes-rpc/{{ service }}:
  file.managed:
    - source: salt://qvm-template/files/rpc-services/{{ service }}
    - mode: '0755'
    - makedirs: True
{%- else %}
qvm-template-offers-no-service:
  test.nop
{%- endfor %}
