"""What people read: tables on stdout (or JSON) from run directories and recipes. Reads files, measures nothing."""
