include:
  - template-debian-13-minimal

multimedia-clone-id:
  qvm.clone:
    - require:
      - sls: template-debian-13-minimal
    - name: template-multimedia
    - source: debian-13-minimal
