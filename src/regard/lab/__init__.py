"""The lab: what people are told about attention, claim by claim, as experiments that anybody can run again."""
