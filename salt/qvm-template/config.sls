# SPDX-License-Identifier: GPL-2.0-or-later
# The settings of the whole qube, and what callers from other qubes are granted.
{%- from "qvm-template/map.jinja" import settings, root with context %}
{%- set note = "# Kept so by Salt: change the pillar, not this file." %}
{{ root }}/etc/qubes/qvm-template.toml:
  file.managed:
    - contents: |
        {{ note }}
        {%- for key, value in settings.config | dictsort %}
        {{ key }} = {{ value | json }}
        {%- endfor %}
    - mode: '0644'
    - makedirs: True

{{ root }}/etc/qubes/qvm-template-grants.toml:
{%- if settings.grants is defined %}
  file.managed:
    - contents: |
        {{ note }}
        version = 1
        {%- if settings.grants["audit-log"] is defined %}
        audit-log = {{ settings.grants["audit-log"] | json }}
        {%- endif %}
        {%- for grant in settings.grants.get("grant", []) %}

        [[grant]]
        {%- for key, value in grant | dictsort %}
        {{ key }} = {{ value | json }}
        {%- endfor %}
        {%- endfor %}
    - mode: '0644'
    - makedirs: True
{%- else %}
  file.absent: []
{%- endif %}
