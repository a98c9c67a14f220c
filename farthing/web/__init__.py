"""The dashboard's server: pages made of reports, as JSON, CSV and HTML (docs/dashboard.md, docs/access.md)."""
