# SPDX-License-Identifier: GPL-2.0-or-later
# Rolls one build of one template over a fleet:
#
#   salt-run state.orchestrate orchestrate.roll \
#       pillar='{"template": "debian-13-xfce", "build": "4.3.0-202601010000", "repository": "qubes-templates-itl"}' \
#       --out=json > roll.json
#
# First everywhere as a plan, so that a build that no repository has, or a machine that cannot be reached, ends it before
# anything is changed; then on the canaries; then on the others, a few at a time. The first failure ends it: what was
# done stays, what was not begun is as it was. roll.json has the answer of each machine, with the old and the new build.
{%- set given = salt["pillar.get"] %}
{%- set template = given("template") %}
{%- set fleet = given("fleet", "mgmt*") %}
{%- set canaries = given("canaries", "mgmt-canary*") %}
{%- if not template or not given("build") %}
{{ raise("the pillar has to name a template and its build") }}
{%- endif %}
{%- set what = {
    "name": template,
    "version": given("build"),
    "repository": given("repository", none),
    "key": given("key", none),
    "allow_overwrite": true,
} %}

plan:
  salt.state:
    - tgt: {{ fleet | json }}
    - sls: [orchestrate.template]
    - pillar: {{ {"what": what} | json }}
    - test: True
    - failhard: True

canaries:
  salt.state:
    - tgt: {{ canaries | json }}
    - sls: [orchestrate.template]
    - pillar: {{ {"what": what} | json }}
    - failhard: True
    - require:
      - salt: plan

fleet:
  salt.state:
    - tgt: {{ fleet | json }}
    - sls: [orchestrate.template]
    - pillar: {{ {"what": what} | json }}
    - batch: {{ given("batch", "10%") | json }}
    - fail_minions: []
    - failhard: True
    - require:
      - salt: canaries

# What is there now, everywhere, as one object a machine.
report:
  salt.function:
    - name: qvm_template.report
    - tgt: {{ fleet | json }}
    - require:
      - salt: fleet
