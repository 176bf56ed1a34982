"""`distillkit view`: the reports of a folder's runs in a browser, live while they train, on this machine alone."""
