"""The context file in the manual of zmicroservices 1.0, unchanged: an EchoAction and a Monitor."""

from __future__ import annotations

MANUAL = """<?xml version='1.0' encoding='utf8'?>
<Context>
  <FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint> <!--   SUB -->
  <BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>   <!--   PUB -->
  <FrontBind>tcp://*:5557</FrontBind>
  <BackendBind>tcp://*:5556</BackendBind>
  <TaskLogName>EchoAction</TaskLogName>
  <ContextID>context001</ContextID>
  <TaskService id='ts_100' topic='process' instance='EchoAction' serviceType='Process'>
    <Task>
      <description>
        An echo action is for shouting the time after counting 10s
      </description>
      <message>
        <header>
          <action>start</action>
          <service_name>echo_action</service_name>
        </header>
        <content>
          <configuration>
            <device_action>shout</device_action>
            <location></location>
          </configuration>
        </content>
      </message>
      <state type="on_start">
        <on_start><action></action><call></call></on_start>
        <on_update><action></action><call></call></on_update>
        <on_fail><action>restart</action><call>ts_100</call></on_fail>
        <on_exit><action>start</action><call>ts000</call></on_exit>
      </state>
    </Task>
  </TaskService>
  <TaskService id="ts000" instance="Monitor" serviceType="Process" topic="process">
    <Task>
      <description>
        Monitors memory and process for context task services
      </description>
      <message>
        <header>
          <action>start</action>
          <service_name>monitor</service_name>
        </header>
        <content>
          <configuration>
            <device_action>task_monitor</device_action>
            <service>
              <endpoint>tcp://127.0.0.1:6558</endpoint>
              <frequency_s>30.0</frequency_s>
              <type>pub</type>
            </service>
            <monitor_options>
              <opened_files>1</opened_files>
              <open_connections>1</open_connections>
              <memory_maps>1</memory_maps>
            </monitor_options>
          </configuration>
        </content>
      </message>
      <state type="on_start">
        <on_start>
          <action />
          <call />
        </on_start>
        <on_update>
          <action />
          <call />
        </on_update>
        <on_fail>
          <action>restart</action>
          <call>ts000</call>
        </on_fail>
        <on_exit>
          <action />
          <call />
        </on_exit>
      </state>
    </Task>
  </TaskService>
</Context>
"""

MONITOR = MANUAL[MANUAL.index('  <TaskService id="ts000"') : MANUAL.index("</Context>")]
"""Its second task."""
