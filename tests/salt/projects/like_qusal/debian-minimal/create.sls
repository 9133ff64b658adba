{%- import slsdotpath ~ "/template.jinja" as template -%}

include:
  - .clone

"{{ slsdotpath }}-template-prefs":
  qvm.vm:
    - name: {{ template.template }}
    - require:
      - sls: {{ slsdotpath }}.clone
    - prefs:
      - memory: 300
      - vcpus: 1

"{{ slsdotpath }}-clone":
  qvm.clone:
    - name: tpl-{{ template.template_clean }}
    - source: {{ template.template }}
    - require:
      - sls: {{ slsdotpath }}.clone
