"""What turns a bare machine into an OpenStack, in the order in which `lab up` needs it.

profile    what is known of a distribution and a release, as data, and the user's settings over it
prepare    stages from a bare machine to one that stack.sh can work on: packages, accounts, DevStack's sources
localconf  DevStack's local.conf: rendered from fragments, explained line by line, graded where a learner wrote it
stack      stack.sh run detached under systemd, followed, and explained when it fails
packstack  the same with PackStack in DevStack's place
"""
