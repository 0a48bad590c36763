"""Importing this module registers every built-in part. It imports neither torch nor pydantic's models: see `nnrun.lazy`."""

from nnrun.check import batch_rules as batch_rules
from nnrun.check import config_rules as config_rules
from nnrun.check import data_rules as data_rules
from nnrun.check import health as health
from nnrun.check import rules as rules
from nnrun.data import augment as augment
from nnrun.data import categories as categories
from nnrun.data import datasets as datasets
from nnrun.data import preprocess as preprocess
from nnrun.data import split as split
from nnrun.model import layers as layers
from nnrun.tracking import mlflow as mlflow
from nnrun.tracking import tensorboard as tensorboard
from nnrun.training import losses as losses
from nnrun.training import metrics as metrics
from nnrun.training import optimizers as optimizers
from nnrun.training import schedules as schedules
from nnrun.training import strategies as strategies
