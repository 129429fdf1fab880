"""The operator in a simulated cluster, driven through faults from one seed.

agenda        virtual time
apiserver     what etcd holds: resource versions, watches, JSON patches, deletion, garbage collection, TTL
jobs          the Job controller, and a queue that admits Jobs
nodes         kubelets, the trainers in their pods, and the object store
watch         streams that come late, twice, or not at all
faults        what goes wrong with a call
process       one operator process: the real cache, queue and controller, fed by all of that
people        those who edit, delete and meddle
laws          what must never happen, checked at every write
world         one of each; phase A with faults, phase B without
shapes        the runs that are simulated
system        the operator's modules, as they are or with one line changed
mutants       the changed lines
"""
