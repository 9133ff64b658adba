# Each machine gets the pillar of its role. Here all minions are management qubes that Salt keeps, and dom0 has the same.
base:
  '*':
    - salt
