"""The prices of arithmetic that models of whole networks take where nothing else is said."""

from hwmodels.fpga import formula_prices
from hwmodels.fpga.dataflow import Prices

DEFAULT = Prices(unit=formula_prices.unit_price, requantizer=formula_prices.requantizer_price)
