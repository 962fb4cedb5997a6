"""What can be wrong around the database: settings, disks, system, vendor. Each check returns findings."""
