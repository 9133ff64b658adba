# A template of a repository that is not enabled, in a pool, and two at once.
whonix-is-there:
  qvm.template_installed:
    - fromrepo: qubes-templates-community
    - pool: varlibqubes
    - names:
      - whonix-gateway-18
      - whonix-workstation-18
