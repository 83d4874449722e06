"""Figures as plain functions: records, arrays and reports in, matplotlib figures out."""
