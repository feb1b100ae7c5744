"""The Python API: images as objects and their files as paths, without a mount.

Receives what programs ask for; hands on values and files.  No stage may know that it is asked by a program and not by
the command line.  All public names are those of `imagefs`; errors are those of `imagefs.errors`::

    import imagefs

    with imagefs.open_store(create=True) as store:  # that of the command line, unless a path is given
        old, new = (store.pull(f"acme/web:{tag}") for tag in ("1.0", "1.1"))
        print(new.names, len(new.layers), new.config.cmd)  # ('acme/web:1.1',) 3 ('/bin/sh', '/srv/app.py')
        print(new.path("bin/sh").resolve())  # /bin/busybox
        with new.path("etc/web.conf").open() as file:
            print(file.readline().strip())  # port = 80
        print([path.name for path in new.root.glob("srv/*.py")])  # ['app.py', 'metrics.py']
        for change in imagefs.diff(old, new, path="etc"):
            print(change.kind, change.path, change.aspects)  # changed /etc/web.conf ('content', 'mode', 'times')
"""
