{#- As qusal has it: name and repository from a file beside this one. -#}
{%- import slsdotpath ~ "/template.jinja" as template -%}

"{{ template.template }}-template-installed":
  qvm.template_installed:
    - name: {{ template.template }}
    - fromrepo: {{ template.repo }}
