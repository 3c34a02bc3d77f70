"""What people read: run directories and recipes in, tables on stdout (or JSON) out. Reads files, measures nothing."""
