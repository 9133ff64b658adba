# SPDX-License-Identifier: GPL-2.0-or-later
# Repositories and the keys that vouch for what they have.
{%- from "qvm-template/map.jinja" import settings, root, checked with context %}
{%- set folder = root ~ "/etc/qubes/repo-templates" %}
{%- for name, key in settings["keys"] | dictsort %}
{{ folder }}/keys/{{ name }}:
{%- if key.source is defined %}
  file.managed:
    - source: {{ key.source | json }}
    {{ checked(key.source, key.sha256) }}
{%- else %}
  file.managed:
    - contents: {{ key.contents | json }}
{%- endif %}
    - mode: '0644'
    - makedirs: True
    - dir_mode: '0755'
{%- endfor %}
{%- for file, sections in settings.repositories | dictsort %}
{{ folder }}/{{ file }}:
  file.managed:
    - contents: |
        # Kept so by Salt: change the pillar, not this file.
        {%- for section, values in sections | dictsort %}

        [{{ section }}]
        {%- for key, value in values | dictsort %}
        {{ key }} = {{ (value | int) if value is sameas true or value is sameas false else value }}
        {%- endfor %}
        {%- endfor %}
    - mode: '0644'
    - makedirs: True
{%- if settings["keys"] %}
    - require:
{%- for name in settings["keys"] | sort %}
      - file: {{ folder }}/keys/{{ name }}
{%- endfor %}
{%- endif %}
{%- else %}
qvm-template-repositories-of-the-package:
  test.nop:
    - name: the pillar names no repositories, so those of the package qubes-repo-templates hold
{%- endfor %}
