# dom0 and the management qube each get what belongs there.
base:
  'dom0 or mgmt*':
    - match: compound
    - qvm-template
