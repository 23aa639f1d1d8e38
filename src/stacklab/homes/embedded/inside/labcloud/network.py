"""Neutron without agents: every port is bound at once, and floating IPs say what they are."""

from neutron.services.l3_router import l3_router_plugin
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class LabMechanismDriver(api.MechanismDriver):
    """Binds every port on every segment; the guests' user-mode network needs nothing plugged on the host."""

    def initialize(self):
        pass

    @property
    def connectivity(self):
        return portbindings.CONNECTIVITY_L2

    def bind_port(self, context):
        for segment in context.segments_to_bind:
            context.set_binding(
                segment[api.ID],
                portbindings.VIF_TYPE_BRIDGE,
                {portbindings.CAP_PORT_FILTER: True},
                status=constants.PORT_STATUS_ACTIVE,
            )
            return

    def try_to_bind_segment_for_agent(self, *args):
        return False

    def check_vlan_transparency(self, context):
        return True


class LabRouterPlugin(l3_router_plugin.L3RouterPlugin):
    """The router plugin; an L3 agent would report a floating IP's status, so here the association itself decides it."""

    def _tell_status(self, context, floating_ip):
        active, down = constants.FLOATINGIP_STATUS_ACTIVE, constants.FLOATINGIP_STATUS_DOWN
        status = active if floating_ip.get("port_id") else down
        if floating_ip.get("status") != status:
            self.update_floatingip_status(context.elevated(), floating_ip["id"], status)
            floating_ip["status"] = status
        return floating_ip

    def create_floatingip(self, context, floatingip):
        return self._tell_status(context, super().create_floatingip(context, floatingip))

    def update_floatingip(self, context, id, floatingip):  # noqa: A002 - Neutron's signature
        return self._tell_status(context, super().update_floatingip(context, id, floatingip))
