"""The documentation as a site: pages that are run, a reference made of the registries, one strict build. It is no part of the package."""
