"""Examinations: one post-mortem procedure on model and data, one file each.

An examination module has ``EXAMINATION = Examination(...)``. Its result type is the file of the same name in
:mod:`torchwatch.results`, its page the one in :mod:`torchwatch.report.autopsy`. They are found by walking
this folder; modules without that name are what examinations share.
"""
