"""Where things lie: paths and URIs, what is read there, and the objects of a run directory.

uri.py takes what users write apart. filesystem.py reads through Arrow, whose clients are in clients.py, on threads that
can be left behind (threads.py). base.py is the seam for run directories: local.py is a folder, objects.py a bucket (its
writes: object_writer.py), patient.py waits where either fails for a while; open.py chooses.
"""
