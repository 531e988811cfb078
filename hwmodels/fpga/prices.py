"""The prices of arithmetic that models of whole networks take where nothing else is said: by the tables that are shipped."""

from hwmodels.fpga.dataflow import Prices
from hwmodels.fpga.mac_model import unit_price
from hwmodels.fpga.requantizer_model import requantizer_price

DEFAULT = Prices(unit=unit_price, requantizer=requantizer_price)
