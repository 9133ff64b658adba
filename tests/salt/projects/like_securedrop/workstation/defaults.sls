# Values that other files import from here; this one has no state of its own.
{% set release = {"debian": "13", "template": "debian-13-minimal", "system": "fedora-43-xfce"} %}
