# As shaker has it: a file for each template, which others include.
template-debian-13-minimal:
  qvm.template_installed:
    - name: debian-13-minimal
