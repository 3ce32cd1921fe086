"""Where DSPy's LM calls and our engine meet. The forms that a call may have are known in this package and nowhere else.

===================  ==========================================================================================
``lm_call``          one LM call as the engine sees it, whatever its form was
``wrapped_calls``    calls that pass through ``dspy.LM.__call__`` and ``acall``, where a tool has wrapped these
``engine_objects``   our engine as an object for ``dspy.LM(engine=…, async_engine=…)``
===================  ==========================================================================================
"""
